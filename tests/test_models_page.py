"""docs/models.md says what the plugins say."""

from models_page import PAGE, page


def test_the_page_of_models_is_what_the_plugins_say() -> None:
    assert PAGE.read_text() == page(), "docs/models.md is older than the plugins; type python tests/models_page.py"
