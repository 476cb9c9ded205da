"""`python -m deployments.cli`: the `still` command."""

from deployments.cli import main

main()
