"""How Sphinx builds the documentation: `make docs`."""

from __future__ import annotations

import inspect
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

import skmimood

project = "skmimood"
author = copyright = "The skmimood developers"
version = release = skmimood.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_templates", "generated/backreferences"]
default_role = "py:obj"
nitpicky = True
suppress_warnings = ["config.cache"]  # the gallery's own settings cannot be pickled

autosummary_imported_members = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # numpydoc has the types
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

html_theme = "pydata_sphinx_theme"
html_title = f"skmimood {release}"
html_show_sourcelink = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
}
html_sidebars = {"index": [], "changelog": []}

copybutton_prompt_text = ">>> "

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "subsection_order": [
        f"../examples/{name}" for name in ("first_steps", "your_scans", "choosing", "going_further")
    ],
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skmimood",),
    "abort_on_example_error": False,
    "remove_config_comments": True,
    "show_signature": False,
    "min_reported_time": 1,
}

# Their documentation is not here, and no inventory of it is fetched.
_ELSEWHERE = ("joblib", "matplotlib", "nibabel", "numpy", "pandas", "sklearn", "torch")


def resolve(app: Sphinx, env: Any, node: Any, contnode: nodes.Node) -> nodes.Node | None:
    """Link a name to the object of the shortest path that ends in it; names from elsewhere stay code.

    So docstrings write `VQTokenizer` wherever they stand. What has no page is code in single backquotes, and a warning
    elsewhere.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    if target.split(".")[0] in _ELSEWHERE:
        return contnode
    objects = env.get_domain("py").objects
    ends = [name for name in objects if name == target or name.endswith(f".{target}")]
    if ends:
        entry = objects[min(ends, key=lambda name: (name.count("."), name))]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, target)
    return contnode if node["reftype"] == "obj" else None


def is_left_out(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out members that a class has from other packages, which their documentation describes."""
    member = obj.fget if isinstance(obj, property) else inspect.unwrap(obj) if callable(obj) else None
    module = getattr(member, "__module__", None) or "skmimood"
    return None if module.startswith("skmimood") else True


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.connect("missing-reference", resolve)
    app.connect("autodoc-skip-member", is_left_out)
