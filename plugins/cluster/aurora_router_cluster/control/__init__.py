"""The control plane: which instances there are, which one is the writer, and the requests that are served."""
