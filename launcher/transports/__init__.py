"""Ways to reach a node. Each is one file; all keep the contract in base.py."""
