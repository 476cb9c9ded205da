"""The science and the machines of the STILL recipes; knows no orchestrator, bucket or cluster."""
