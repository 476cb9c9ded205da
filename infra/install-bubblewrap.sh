#!/usr/bin/env bash
# The sandbox for model-written code wants bubblewrap. Install it where that can be done without a
# question; elsewhere say so: a recipe without code problems works without it.
set -u
command -v bwrap >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq bubblewrap >/dev/null && exit 0
fi
echo "bubblewrap is not installed: code problems, which the demo has, can not be verified. Install the package 'bubblewrap' (see '.venv/bin/still doctor')."
