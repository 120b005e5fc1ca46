"""Where images come from. One file per source; each gives batches on the worker's device."""
