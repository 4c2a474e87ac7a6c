"""What one node can be told besides its timeout: the options, the layers that they are, and what each layer does."""
