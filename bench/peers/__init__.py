"""Other stores, each as three nodes on this machine, and how our load generator asks them."""
