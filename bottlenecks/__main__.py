from bottlenecks.cli import main

raise SystemExit(main())
