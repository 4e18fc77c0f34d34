"""A USB Video Class camera in user space, plugged into the kernel by USB/IP. See __main__.py for how to use it."""
