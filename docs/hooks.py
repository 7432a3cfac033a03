"""What mkdocs does besides: links lead to files of the repository, as they do where it is browsed."""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
LINK = re.compile(r"(?<=\]\()(?P<file>[\w./-]+)(?P<anchor>#[\w-]*)?(?=\))")


def in_site(link, page):
    """Where a link of a page leads in the site: the repository's files are beside the pages there."""
    above = "../" * page.count("/")
    folder = "" if page in PAGES.values() else os.path.dirname(f"docs/{page}")
    path = os.path.normpath(os.path.join(folder, link)).replace(os.sep, "/")
    return above + PAGES.get(path, path.removeprefix("docs/"))


def on_files(files, config):
    """Add the pages of the root, and every file outside docs that a page links to."""
    texts = {page: (ROOT / name).read_text() for name, page in PAGES.items()}
    texts |= {file.src_uri: file.content_string for file in files.documentation_pages()}
    for page in PAGES.values():
        files.append(File.generated(config, page, content=texts[page]))
    for page, text in texts.items():
        for link in LINK.finditer(text):
            path = in_site(link["file"], page).replace("../", "")
            if files.get_file_from_path(path) is None and (ROOT / path).is_file():
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn the links of a page to where their files are in the site."""
    return LINK.sub(
        lambda link: in_site(link["file"], page.file.src_uri) + (link["anchor"] or ""), markdown
    )
