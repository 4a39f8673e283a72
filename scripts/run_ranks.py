"""torchrun, ending with the exit code of the rank that failed first; torchrun itself makes a 1 of them all.

    python -m scripts.run_ranks --standalone --nproc_per_node=2 main_train_vrt.py --opt FILE

A rank that a signal ended counts as a shell counts: 128 plus the signal's number.
"""

import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: torchrun's."""
    try:
        torchrun(argv)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(main())
