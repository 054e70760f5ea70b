"""The compiler and the clerk: turns a job into a verified graph and schedules it over the nodes.  Never holds a share."""
