"""The command line."""

import argparse
import ast
import importlib
import os
import sys

import torch

from . import __doc__ as USAGE
from .description import describe
from .inputs import parse_input
from .problems import DescriptionError


def main(arguments):
    options = _parser().parse_args(arguments)
    # As python3 -m has it, so that "package.module" is what it is for the trainer.
    sys.path.insert(0, os.getcwd())
    try:
        text = describe(load_module(options.module, dict(options.arg)), options.input, options.leave_aside)
    except DescriptionError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 1
    if options.output is None:
        sys.stdout.write(text)
    else:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    return 0


def _parser():
    parser = argparse.ArgumentParser(prog="describe_module", description=USAGE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", metavar="package.module:factory",
                        help="a class or function that gives a torch.nn.Module, or a module itself")
    parser.add_argument("--arg", metavar="KEY=VALUE", action="append", default=[], type=_argument,
                        help="a keyword argument of the factory, as Python writes it; may be repeated")
    parser.add_argument("--input", metavar="NAME=TYPE[SIZES]", action="append", default=[], type=_input,
                        help="an argument of forward, such as x=FP32[-1,3,224,224]; -1 is a free dimension, the "
                        "first one the batch's; may be repeated, and left out where the first layer says it")
    parser.add_argument("--output", metavar="FILE", help="where to write; the standard output if left out")
    parser.add_argument("--leave-aside", action="store_true",
                        help="let checkpoints hold tensors that forward never uses, such as those of a head that is "
                        "only trained with: checkpoints { strict: false }")
    return parser


def _input(text):
    try:
        return parse_input(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _argument(text):
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f'"{text}" is not like depth=18')
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value  # A word.


def load_module(name, arguments):
    """The torch.nn.Module that "package.module:factory" stands for."""
    path, colon, attributes = name.partition(":")
    if not colon or not attributes:
        raise DescriptionError([f'"{name}" is not like package.module:factory'])
    try:
        found = importlib.import_module(path)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        raise DescriptionError([f'"{name}" is not there: {error}']) from error
    if isinstance(found, torch.nn.Module):
        if arguments:
            raise DescriptionError([f'"{name}" is a module already, which takes no arguments'])
        return found
    if not callable(found):
        raise DescriptionError([f'"{name}" is neither a module nor something that gives one'])
    try:
        module = found(**arguments)
    except TypeError as error:
        raise DescriptionError([f'"{name}" cannot be called so, give what it takes by --arg: {error}']) from error
    if not isinstance(module, torch.nn.Module):
        raise DescriptionError([f'"{name}" gives a {type(module).__name__}, not a torch.nn.Module'])
    return module
