"""How far it is from a command to a world: the modules that one experiment passes, and how often it comes back to one.

    python tests/benchmarks/way.py [PACKAGE_FOLDER]

Counted on ``pflbench run --method spectral`` up to the moment the first round begins, by a profile of the calls between
modules of the package, while none is being imported and without the vocabulary that every module speaks (errors, fields,
files, streams, tree): *modules*, how many are entered; *returns*, calls into one that was left before; *looked up*, how
often a name is resolved to what it stands for.
"""

import sys
from pathlib import Path

HERE = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
sys.path.insert(0, str(HERE))


VOCABULARY = ("errors", "fields", "files", "streams", "tree")
LOOKS = ("find", "module_of", "_module")  # of this registry, of the methods' one before it, of the data sets' one


class Arrived(BaseException):
    """The first round begins."""


def main() -> None:
    import tempfile

    import click.testing  # noqa: F401 (loaded before anything is counted)

    from pflbench.cli import main as command

    own, path = str(HERE / "pflbench"), []
    looked = 0

    def watch(frame, event, argument):
        nonlocal looked
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith((own, str(HERE / "baselines"))):
            return
        name = frame.f_code.co_name
        if name == "play" and Path(file).parent.name in ("engine", "pflbench"):
            raise Arrived
        if name in ("<module>", "<lambda>") or name.startswith("<"):
            return
        caller = frame
        while caller is not None:
            if caller.f_code.co_name == "<module>" and caller.f_code.co_filename.startswith(own):
                return  # being imported
            caller = caller.f_back
        if Path(file).stem in VOCABULARY:
            return
        looked += name in LOOKS
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith((own, str(HERE / "baselines"))):
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != file:
            path.append((caller.f_code.co_filename, file))

    with tempfile.TemporaryDirectory() as folder:
        sys.setprofile(watch)
        try:
            command(["run", "--method", "spectral", "--results", folder], standalone_mode=False)
        except Arrived:
            pass
        finally:
            sys.setprofile(None)
    entered, returns, last = set(), 0, None
    for _, file in path:
        returns += file in entered and file != last
        entered.add(file)
        last = file
    print(f"modules {len(entered)}, returns {returns}, looked up {looked}")


if __name__ == "__main__":
    main()
