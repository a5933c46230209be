import WorkerKit

WorkerMain.run(BrokerStoreWorker.self)
