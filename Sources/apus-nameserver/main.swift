import WorkerKit

WorkerMain.run(NameserverWorker.self)
