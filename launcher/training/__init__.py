"""Real training, as the operator sees it: configuration, course, what is shown and kept."""
