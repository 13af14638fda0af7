from label_image.cli import main

raise SystemExit(main())
