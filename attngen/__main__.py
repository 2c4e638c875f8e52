"""``python -m attngen``: the same as the command ``attngen``."""

from attngen.cli import main

if __name__ == "__main__":
    main()
