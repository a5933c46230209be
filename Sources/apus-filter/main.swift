import WorkerKit

WorkerMain.run(FilterWorker.self)
