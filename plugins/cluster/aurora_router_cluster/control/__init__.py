"""The control plane: which instances there are and who is the writer; what can be asked, and its answers."""
