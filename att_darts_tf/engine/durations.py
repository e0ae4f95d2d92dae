"""How long something takes, in words."""


def duration(seconds: float) -> str:
    """Returns a time as people say it, as `"2 h 05 min"` or `"42 s"`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
