"""What a run found, written for people (Markdown, a web page) and for programs (JSON)."""
