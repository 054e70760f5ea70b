"""The compiler and the clerk: turns a job into a verified graph, and schedules it without holding a share."""
