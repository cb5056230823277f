/* Preloaded, it lets the disk of a storage node fail: writes, syncs and new files of a directory DIR fail with the error
   whose number a symbolic link DIR.errno names (ln -s 5 .../node-3.errno), as long as that is there. Reads go on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int failing(const char *path)
{
    char link[PATH_MAX + 16], number[16];
    const char *slash = strrchr(path, '/');
    ssize_t size;

    if (slash == NULL || strstr(path, "/node-") == NULL)
        return 0;
    snprintf(link, sizeof link, "%.*s.errno", (int)(slash - path), path);
    size = readlink(link, number, sizeof number - 1);
    if (size <= 0)
        return 0;
    number[size] = 0;
    return errno = atoi(number);
}

static int failing_file(int fd)
{
    char link[64], path[PATH_MAX];
    int saved = errno;
    ssize_t size;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, sizeof path - 1);
    if (size > 0) {
        path[size] = 0;
        if (failing(path))
            return 1;
    }
    errno = saved;
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WRITE(name, parameters, arguments)                                                                             \
    ssize_t name parameters                                                                                            \
    {                                                                                                                  \
        static ssize_t(*real) parameters;                                                                              \
        if (real == NULL)                                                                                              \
            real = REAL(name);                                                                                         \
        return failing_file(fd) ? -1 : real arguments;                                                                 \
    }

#define SYNC(name)                                                                                                     \
    int name(int fd)                                                                                                   \
    {                                                                                                                  \
        static int (*real)(int);                                                                                       \
        if (real == NULL)                                                                                              \
            real = REAL(name);                                                                                         \
        return failing_file(fd) ? -1 : real(fd);                                                                       \
    }

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        static int (*real)(const char *, int, ...);                                                                    \
        mode_t mode;                                                                                                   \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
        if (real == NULL)                                                                                              \
            real = REAL(name);                                                                                         \
        return (flags & O_CREAT) && failing(path) ? -1 : real(path, flags, mode);                                      \
    }

WRITE(write, (int fd, const void *data, size_t size), (fd, data, size))
WRITE(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRITE(pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at))
WRITE(pwritev64, (int fd, const struct iovec *parts, int count, off64_t at), (fd, parts, count, at))
WRITE(pwritev2, (int fd, const struct iovec *parts, int count, off_t at, int flags), (fd, parts, count, at, flags))
WRITE(pwritev64v2, (int fd, const struct iovec *parts, int count, off64_t at, int flags), (fd, parts, count, at, flags))
SYNC(fsync)
SYNC(fdatasync)
OPEN(open)
OPEN(open64)
