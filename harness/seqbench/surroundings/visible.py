"""Text of strangers (names of plugins, folders, metrics, what edited files say), shown as the letters that it is."""

# Spaces other than the common one that keep words together or lines apart.
_HARMLESS = ("\n", "\t", "\N{NO-BREAK SPACE}")


def visible(text: str) -> str:
    r"""`text` with everything that is not shown as a letter, mark or space written out, such as \x1b or \u202e.

    So it can neither steer a terminal nor turn the direction of writing, and can be written in any encoding of Unicode.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in _HARMLESS else _written_out(letter) for letter in text)


def _written_out(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
