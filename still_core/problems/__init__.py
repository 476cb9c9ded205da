"""Problems: where they come from, how hard they are, and what keeps benchmarks out of training."""
