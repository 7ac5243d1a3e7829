"""Writes the model.textproto of a PyTorch module, so that relight serves what the module computes.

    python3 tools/describe_module package.module:factory --input x=FP32[-1,3,224,224] --output model.textproto

package.module:factory is a class or function that gives a torch.nn.Module, or a module itself. It is
traced with torch.fx, and each operation is said in relight's vocabulary; every layer has its module's
path for a name, so that the keys of a state dict match by themselves. What the description cannot say
is refused: all of it at once, each with the operation's name and its place in the source.

A size of -1 is free: what forward makes of it must hold for every size. Sizes that are always the same
are better given, for then forward may decide and compute by them. A single tensor that forward returns
is called "output"; several have the keys of a dict or the names of fields, or are "output_0", ....

What forward decides by a free size is refused. Where it makes a plain number of the size first, as by
int(x.size(1)), len(x) or math.sqrt, only trying shows that: with 1 and with sizes up to about a
thousand, or less where the network is large. Decisions at sizes beyond are not seen.

In Python: describe(module, ["x=FP32[-1,3,224,224]"]) gives the text, or raises DescriptionError.
"""

from .description import describe
from .inputs import Input
from .problems import DescriptionError

__all__ = ["DescriptionError", "Input", "describe"]
