-- The user's role and database; run after surface.sql, in the database postgres.

CREATE ROLE app LOGIN PASSWORD 'app';

CREATE DATABASE app OWNER app;
