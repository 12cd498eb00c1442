"""Links from a type in a signature to its description: here, or in another library's pages.

Intersphinx would fetch the other libraries' inventories, and the build needs no network; these are
the few of their types that our signatures name. A type of ours is found by its last name, too, as a
signature says it.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

PYTHON = "https://docs.python.org/3/library/{}.html#{}"
NUMPY = "https://numpy.org/doc/stable/reference/{}.html#{}"
TORCH = "https://docs.pytorch.org/docs/stable/{}.html#{}"
ADDRESSES = {
    **{
        f"collections.abc.{name}": PYTHON.format("collections.abc", f"collections.abc.{name}")
        for name in ("Callable", "Iterable", "Iterator", "Mapping", "Sequence")
    },
    "os.PathLike": PYTHON.format("os", "os.PathLike"),
    "pathlib.Path": PYTHON.format("pathlib", "pathlib.Path"),
    "types.ModuleType": PYTHON.format("types", "types.ModuleType"),
    "numpy.dtype": NUMPY.format("generated/numpy.dtype", "numpy.dtype"),
    "numpy.ndarray": NUMPY.format("generated/numpy.ndarray", "numpy.ndarray"),
    "numpy.typing.NDArray": NUMPY.format("typing", "numpy.typing.NDArray"),
    **{
        f"numpy.{name}": NUMPY.format("arrays.scalars", f"numpy.{name}")
        for name in ("bool", "float16", "float32", "generic", "int64", "uint8")
    },
    "PIL.Image.Image": "https://pillow.readthedocs.io/en/stable/reference/Image.html#PIL.Image.Image",
    "torch.Tensor": TORCH.format("tensors", "torch.Tensor"),
    "torch.device": TORCH.format("tensor_attributes", "torch.device"),
    "torch.dtype": TORCH.format("tensor_attributes", "torch.dtype"),
    "torch.nn.Module": TORCH.format("generated/torch.nn.Module", "torch.nn.Module"),
    "jaxtyping.Float": "https://docs.kidger.site/jaxtyping/api/array/",
}
# Names that signatures say in another way.
SAME = {
    "JobsMixin": "clever_hub.backends.torch.CleverModel",  # what both backends can do
    "torch.nn.modules.module.Module": "torch.nn.Module",
    "Image.Image": "PIL.Image.Image",
    "np.bool_": "numpy.bool",
    **{f"np.{name}": f"numpy.{name}" for name in ("float16", "float32", "int64", "uint8")},
}
# Without numpy's bool: a signature's bool is Python's.
_LAST = {
    name.rpartition(".")[2]: address for name, address in ADDRESSES.items() if name != "numpy.bool"
}


def link(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Resolve a name that Sphinx did not find."""
    if node.get("refdomain") != "py":
        return None
    target = str(node["reftarget"])
    target = SAME.get(target, target)
    objects = env.domains.python_domain.objects
    if address := ADDRESSES.get(target) or _LAST.get(target):
        return nodes.reference("", "", content, internal=False, refuri=address)
    last = "." + target.rpartition(".")[2]
    found = {(o.docname, o.node_id) for name, o in objects.items() if name.endswith(last)}
    if len(found) != 1:
        return None
    ((page, anchor),) = found
    return make_refnode(app.builder, node["refdoc"], page, anchor, content, target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("missing-reference", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
