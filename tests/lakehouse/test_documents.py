"""The documents say what the code says."""

import re
from pathlib import Path

from lakehouse.stores.schemas import TABLES

ROOT = Path(__file__).parents[2]


def test_tables_md_lists_every_column_with_its_type_and_meaning() -> None:
    text = (ROOT / "docs" / "tables.md").read_text()
    for table in TABLES.values():
        section = text.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        written = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", section, re.MULTILINE)
        meant = [(f.name, str(f.type), f.metadata[b"description"].decode()) for f in table.schema]
        assert written == meant
        assert f"partitioned by {', '.join(table.partition_by)}." in section


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
