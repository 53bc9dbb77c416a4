// Informer prints what client-go's informers say of configmaps and pods, a line an event, until it is ended:
// informer KUBECONFIG NAMESPACE
package main

import (
	"fmt"
	"os"
	"os/signal"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func say(kind, event string, object any) {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	if accessor, err := meta.Accessor(object); err == nil {
		fmt.Println(event, kind, accessor.GetName(), accessor.GetLabels()["v"])
	}
}

func follow(kind string, informer cache.SharedIndexInformer) {
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { say(kind, "added", object) },
		UpdateFunc: func(_, object any) { say(kind, "updated", object) },
		DeleteFunc: func(object any) { say(kind, "deleted", object) },
	}
	if _, err := informer.AddEventHandler(handler); err != nil {
		panic(err)
	}
}

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		panic(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(os.Args[2]))
	follow("configmap", factory.Core().V1().ConfigMaps().Informer())
	follow("pod", factory.Core().V1().Pods().Informer())
	stop := make(chan struct{})
	factory.Start(stop)
	factory.WaitForCacheSync(stop)
	fmt.Println("synced")
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt)
	<-ended
	close(stop)
	factory.Shutdown()
}
