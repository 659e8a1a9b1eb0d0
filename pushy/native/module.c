/* The module: its functions, and what it is told of Python's classes before anything else. */
#include "hot.h"

#define DEFINE_CLASS(name, slots) struct name##_slots name;
CLASSES(DEFINE_CLASS)
struct names N;

static Py_ssize_t offset_of(PyObject *type, const char *name) {
    PyObject *slot = PyObject_GetAttrString(type, name);
    if (!slot) return -1;
    Py_ssize_t offset = Py_IS_TYPE(slot, &PyMemberDescr_Type) ? ((PyMemberDescrObject *)slot)->d_member->offset : -1;
    Py_DECREF(slot);
    if (offset < 0) PyErr_Format(PyExc_TypeError, "%R has no slot %s", type, name);
    return offset;
}

/* prepare({"Stream": Stream, ...}): the classes whose slots are used. Raises KeyError, or TypeError for one that has not the slots. */
static PyObject *prepare(PyObject *Py_UNUSED(module), PyObject *classes) {
    PyObject *type;
#define FIND_SLOT(slot) if ((here->slot = offset_of(type, #slot)) < 0) return NULL;
#define FIND_CLASS(name, slots) { \
        struct name##_slots *here = &name; \
        if (!(type = PyDict_GetItemString(classes, #name))) return PyErr_Format(PyExc_KeyError, #name); \
        slots(FIND_SLOT) \
        Py_XSETREF(here->type, (PyTypeObject *)Py_NewRef(type)); \
    }
    CLASSES(FIND_CLASS)
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"prepare", prepare, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_hot", .m_size = -1, .m_methods = functions};

static int add(PyObject *to, const char *name, PyType_Spec *spec) {
    PyObject *type = PyType_FromSpec(spec);
    int done = type ? PyModule_AddObjectRef(to, name, type) : -1;
    Py_XDECREF(type);
    return done;
}

PyMODINIT_FUNC PyInit__hot(void) {
    PyObject *made = PyModule_Create(&module);
#define INTERN(name) if (made && !(N.name = PyUnicode_InternFromString(#name))) Py_CLEAR(made);
    NAMES(INTERN)
    if (made && (add(made, "Turn", &turn_spec) || add(made, "Loops", &loops_spec))) Py_CLEAR(made);
    return made;
}
