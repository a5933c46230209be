import WorkerKit

WorkerMain.run(GatewayWorker.self)
