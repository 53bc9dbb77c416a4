// Operator is one as controller-runtime makes them, until it is ended: operator KUBECONFIG NAMESPACE
//
// Of every Greeting it keeps a ConfigMap of the same name with its text, says so in the Greeting's status and in an
// Event, and writes "farewell NAME" when it lets go of one that was deleted.
package main

import (
	"context"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const finalizer = "example.com/farewell"

func greeting() *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Greeting"})
	return object
}

type reconciler struct {
	client.Client
	events events.EventRecorder
}

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	object := greeting()
	if err := r.Get(ctx, request.NamespacedName, object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !object.GetDeletionTimestamp().IsZero() {
		if controllerutil.RemoveFinalizer(object, finalizer) {
			fmt.Println("farewell", object.GetName())
			return ctrl.Result{}, r.Update(ctx, object)
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(object, finalizer) {
		return ctrl.Result{}, r.Update(ctx, object)
	}
	text, _, err := unstructured.NestedString(object.Object, "spec", "text")
	if err != nil {
		return ctrl.Result{}, err
	}
	kept := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: object.GetName(), Namespace: object.GetNamespace()}}
	done, err := controllerutil.CreateOrUpdate(ctx, r.Client, kept, func() error {
		kept.Data = map[string]string{"text": text}
		return controllerutil.SetControllerReference(object, kept, r.Scheme())
	})
	if err != nil {
		return ctrl.Result{}, err
	}
	if done != controllerutil.OperationResultNone {
		r.events.Eventf(object, kept, corev1.EventTypeNormal, "Kept", "Keep", "the ConfigMap was %s", done)
	}
	before := object.DeepCopy()
	if err := unstructured.SetNestedField(object.Object, text, "status", "said"); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.Status().Patch(ctx, object, client.MergeFrom(before))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	ctrl.SetLogger(zap.New())
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	must(err)
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Cache:                   cache.Options{DefaultNamespaces: map[string]cache.Config{os.Args[2]: {}}},
		LeaderElection:          true,
		LeaderElectionID:        "greetings.example.com",
		LeaderElectionNamespace: os.Args[2],
		Metrics:                 server.Options{BindAddress: "0"},
	})
	must(err)
	keeper := &reconciler{manager.GetClient(), manager.GetEventRecorder("greetings")}
	must(ctrl.NewControllerManagedBy(manager).For(greeting()).Owns(&corev1.ConfigMap{}).Complete(keeper))
	must(manager.Start(ctrl.SetupSignalHandler()))
}
