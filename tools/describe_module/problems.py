"""What stands in the way of a description."""


class DescriptionError(Exception):
    """A module that cannot be described. `problems` has all that was found, one text each."""

    def __init__(self, problems):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class Refusal(Exception):
    """Why one operation cannot be said. Who catches it knows which operation, and where it is."""


class Unnamed(Refusal):
    """Parameters without a name that a layer can have. There may be another way to say it."""


class Untraceable(Exception):
    """Why tracing cannot go on after an operation. Says where."""


class DoesNotRun(Exception):
    """An operation that fails on the sizes that tracing chose; others may do."""
