"""The servers of the cluster profile: what they are (docker/processes.toml), and how they are started.

Here belongs what it takes to have ZooKeeper, Fluss, Flink, PostgreSQL and Iggy running, on this machine or in
a container. What the platform does with them belongs to the stores and the engines, which know only their
addresses.
"""
