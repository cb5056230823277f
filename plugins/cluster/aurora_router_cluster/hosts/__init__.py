"""A cluster over several hosts: agents there do what the control plane asks for here."""
