error = ExceptionGroup("several", [ValueError(1), TypeError(2)])
error.add_note("a note")
raise error
