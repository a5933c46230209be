import WorkerKit

WorkerMain.run(ReplicationWorker.self)
