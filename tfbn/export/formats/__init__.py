"""What an export can write: `format` says what a format has to do, `savedmodel` is the first one."""
