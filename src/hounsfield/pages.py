"""Self-contained HTML reports from templates that extend `page.html.j2`."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, **content: Any) -> str:
    """The page of a template file; a name that it uses and `content` lacks is an error."""
    loader = FileSystemLoader([template.parent, Path(__file__).parent])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template.name).render(**content)
