"""The command line, ``aurora-router``; other packages add sub-commands by entry points (`command.GROUP`)."""
