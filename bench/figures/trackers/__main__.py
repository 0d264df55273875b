from bench.figures.trackers.command import main

if __name__ == "__main__":
    main()
