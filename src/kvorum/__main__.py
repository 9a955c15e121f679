"""``python -m kvorum``: the command line where no script is installed."""

from kvorum.cli.main import main

if __name__ == "__main__":
    main()
