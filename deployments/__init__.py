"""Where things run: deployments, schedules, work pools and the `still` command."""
