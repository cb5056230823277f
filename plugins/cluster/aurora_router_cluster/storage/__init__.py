"""Where the log lives: in the quorum storage, six copies in three zones, or with the writer alone."""
