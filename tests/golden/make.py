"""Keep new samples: ``python -m tests.golden.make --add``.

Samples that are kept are never changed by this; one that today's code encodes differently is
named, and the command fails. Bytes of that form may lie on somebody's disk or come from a node
that has not been upgraded: let the format grow, and give the new form a sample of its own.
"""

import argparse
import sys

from tests.golden.kept import load, load_index, path_of, save, save_index
from tests.golden.reading import read
from tests.golden.samples import samples


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden.make", description=__doc__)
    parser.add_argument("--add", action="store_true", help="keep the samples that are new")
    add = parser.parse_args(arguments).add
    current = samples()
    new = [name for name in current if not path_of(name).exists()]
    changed = [name for name in current if name not in new and load(name) != current[name]]
    if changed:
        sys.stdout.write(
            f"these samples are kept and differ from what is encoded today: {', '.join(changed)}\n"
            "nothing was written; a format that grows gets a sample under a new name\n"
        )
        return 1
    if add:
        index = load_index()
        for name in new:
            save(name, current[name])
            index[name] = read(name, current[name])
        save_index(index)
    state = "added" if add else "not kept yet"
    sys.stdout.write(f"{len(current)} samples, {len(new)} {state}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
