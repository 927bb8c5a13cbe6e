"""The machine: its cores, the GPU's libraries, proxies of its network."""
