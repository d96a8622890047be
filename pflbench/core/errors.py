"""The one error a user sees: it names the field, the value and what is allowed."""


class BadInput(ValueError):
    """Input that cannot be used. The command line prints it as one line and exits with code 2."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field} = {value}: {allowed}")
