"""How Sphinx builds the site from this folder: ``make docs``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import clever_hub

sys.path.insert(0, str(Path(__file__).resolve().parent / "_extensions"))

project = "clever-hub"
author = "the clever-hub contributors"
project_copyright = author
version = release = clever_hub.__version__

extensions = [
    "myst_nb",  # Markdown, and notebooks in Markdown
    "sphinx.ext.autodoc",
    "docstrings",  # ours: Google docstrings
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "repository_pages",  # ours: pages that live elsewhere in the repository
    "math_svg",  # ours: formulas without a network
    "shipped_models",  # ours: the table of models
    "outside_types",  # ours: links to the types of other libraries
]
root_doc = "index"
exclude_patterns = ["_build", "_extensions"]
nitpicky = True  # every type in a signature has a page

# Markdown
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3  # the anchors that GitHub gives headings
# Notebooks run once, until they change. The tests run them too, so DOCS_NOTEBOOKS=off loses nothing
# but the output on the pages.
nb_execution_mode = os.environ.get("DOCS_NOTEBOOKS", "cache")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 900  # seconds for a cell; on a free machine a notebook takes some
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
# Kernels claim a terminal in colour, in which progress bars move; and warn of their own connection.
_profile = Path(__file__).parent / "_build" / "ipython" / "profile_default"
(_profile / "startup").mkdir(parents=True, exist_ok=True)
(_profile / "startup" / "plain.py").write_text(
    "import os\n"
    'os.environ.pop("FORCE_COLOR", None)\n'
    'os.environ.update(TERM="dumb", NO_COLOR="1", COLUMNS="84")\n'
)
(_profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 40\n")
os.environ["IPYTHONDIR"] = str(_profile.parent)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# API
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Shapes, and types that Sphinx cuts at a comma, are taken for names of types.
nitpick_ignore_regex = [
    ("py:.*", r"'.*'"),
    ("py:.*", r"(dict|list)\[.*"),
    ("py:class", r".*\._\w+T"),  # type variables
]

# Looks
html_math_renderer = "svg"
html_theme = "furo"
html_title = "clever-hub"
html_theme_options = {  # the blue of the invariant part in every figure
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0072B2"},
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
# The summaries of results are fetched, which a browser refuses to a page opened from a file.
html_show_search_summary = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_prompt_text = "$ "
