"""``python -m composer`` is the command ``compose``."""

from composer.cli.app import main

if __name__ == "__main__":
    main()
